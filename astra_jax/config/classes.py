"""SoccerNet-v2's classes, and the Soft-NMS windows that were published for them."""

CLASSES: tuple[str, ...] = (
    "Penalty",
    "Kick-off",
    "Goal",
    "Substitution",
    "Offside",
    "Shots on target",
    "Shots off target",
    "Clearance",
    "Ball out of play",
    "Throw-in",
    "Foul",
    "Indirect free-kick",
    "Direct free-kick",
    "Corner",
    "Yellow card",
    "Red card",
    "Yellow->red card",
)
"""The 17 classes in the official order; the model's class 0 is background, action c is c + 1."""


SOFT_WINDOWS_SECONDS: tuple[float, ...] = tuple(
    map(float, (5, 7, 9, 12, 10, 14, 14, 5, 8, 8, 8, 8, 13, 5, 6, 6, 6))
)
"""The published Soft-NMS windows of the 17 classes, in the official class order."""
