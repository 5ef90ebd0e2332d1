"""The recipe of the embedded model `mini`, from nothing."""
