"""UniCon beside other ways to connect images and depth, trained on the same scenes from the same base."""
