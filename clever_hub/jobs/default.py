"""Which model a job takes where none is named: one rule for all of them."""

from __future__ import annotations

from clever_hub.errors import ModelFormatError
from clever_hub.jobs.heads import HeadsConfig, shipped_with_heads, which_have_heads

RECOMMENDED = "clever-efficientnet-lite0"
# Of the models without heads, for those jobs that do without: the smallest one.
WITHOUT_HEADS = "clever-vit-tiny.ssl"


def default_model(*, heads: bool = False) -> str:
    """The shipped model that is recommended for the jobs.

    It is ``RECOMMENDED``, which tells photos apart best by far. In a package without it, it is the
    one with heads that tells orientation best, by its calibration. Calibrations are made on
    different photos, so that they do not decide between models that are both there. Where none has
    heads, jobs that do without them take ``WITHOUT_HEADS``.

    Args:
        heads: Whether the job cannot do without heads.

    Returns:
        Its name.

    Raises:
        ModelFormatError: When the job needs heads and no shipped model has any.

    Example:
        >>> default_model()
        'clever-efficientnet-lite0'
    """
    having = shipped_with_heads()
    if RECOMMENDED in having:
        return RECOMMENDED
    if having:
        return max(having, key=lambda name: _quarters_right(having[name]))
    if heads:
        raise ModelFormatError(
            "none of the shipped models has heads. Give a model that has: --model FOLDER. "
            + which_have_heads()
        )
    return WITHOUT_HEADS


def _quarters_right(heads: HeadsConfig) -> float:
    return heads.calibration.measured.get("quarter_from_four", 0.0) if heads.calibration else 0.0
