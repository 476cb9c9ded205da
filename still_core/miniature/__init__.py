"""The miniature: a world small enough for two cores in which the papers' claims can be seen.

    drills -> backbone (M_0) ; problems -> teachers -> raw responses -> the same loop as at 32B

A newcomer's first run, the integration test and the laboratory. See docs/explanations/miniature.md.
"""

from still_core.miniature.backbone import backbone_directory, random_backbone, train_backbone

__all__ = ["backbone_directory", "random_backbone", "train_backbone"]
