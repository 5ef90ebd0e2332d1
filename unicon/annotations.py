"""The annotators of the package controlnet-aux by name: what each makes, and the files that it reads.

Imports nothing heavy. `unicon.training.annotators` loads them.

Source: https://github.com/huggingface/controlnet_aux (version 0.0.10).
"""

from __future__ import annotations

from dataclasses import dataclass

WEIGHTS = "lllyasviel/Annotators"
"""Hub repository of most annotators' weights."""


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One way to make a kind of condition."""

    kind: str
    """Kind of condition."""
    detector: str
    """Name of the class in `controlnet_aux`."""
    files: tuple[str, ...] = ()
    """Names of its weight files in the hub repository or the user's folder."""
    repository: str = WEIGHTS
    """Hub repository of its weights; empty where no single one has all files."""
    modules: tuple[str, ...] = ()
    """Modules that it imports beside controlnet-aux's own requirements."""
    is_resized: bool = True
    """Whether a call takes the size of its result (`image_resolution`)."""
    license_note: str = ""
    """What users must know about the license of the weights."""


ANNOTATORS: dict[str, Annotation] = {
    "canny": Annotation(kind="edge", detector="CannyDetector"),
    "hed": Annotation(kind="edge", detector="HEDdetector", files=("ControlNetHED.pth",)),
    "pidinet": Annotation(kind="edge", detector="PidiNetDetector", files=("table5_pidinet.pth",)),
    "teed": Annotation(
        kind="edge", detector="TEEDdetector", files=("5_model.pth",), repository="fal-ai/teed", is_resized=False
    ),
    "lineart": Annotation(kind="edge", detector="LineartDetector", files=("sk_model.pth", "sk_model2.pth")),
    "lineart-anime": Annotation(kind="edge", detector="LineartAnimeDetector", files=("netG.pth",)),
    "mlsd": Annotation(kind="edge", detector="MLSDdetector", files=("mlsd_large_512_fp32.pth",)),
    "midas": Annotation(kind="depth", detector="MidasDetector", files=("dpt_hybrid-midas-501f0c75.pt",)),
    "zoe": Annotation(kind="depth", detector="ZoeDetector", files=("ZoeD_M12_N.pt",)),
    "leres": Annotation(kind="depth", detector="LeresDetector", files=("res101.pth",)),
    "normalbae": Annotation(kind="normal", detector="NormalBaeDetector", files=("scannet.pt",)),
    "openpose": Annotation(
        kind="pose",
        detector="OpenposeDetector",
        files=("body_pose_model.pth", "hand_pose_model.pth", "facenet.pth"),
        license_note="licensed by its authors for non-commercial use only",
    ),
    "dwpose": Annotation(
        kind="pose",
        detector="DWposeDetector",
        files=("yolox_l_8x8_300e_coco_20211126_140236-d3bd2b23.pth", "dw-ll_ucoco_384.pth"),
        repository="",
        modules=("mmcv", "mmdet", "mmpose"),
    ),
}
"""Every annotator by name. Depth maps are 0 (black) far and 255 near."""
DEFAULTS = {"edge": "canny", "depth": "midas", "pose": "openpose"}
"""Kind of condition -> its default annotator."""
ANNOTATIONS: dict[str, Annotation] = {kind: ANNOTATORS[name] for kind, name in DEFAULTS.items()}
