"""Playback: any gate policy in front of recorded truth, as it would have stood before the run."""

from coupler.playback.play import play
from coupler.playback.record import Playback

__all__ = ["Playback", "play"]
