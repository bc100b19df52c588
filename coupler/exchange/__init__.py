"""The way from a rank's elements to the model and back: arena, doorbell and the transports over them."""

from coupler.exchange.arena import Arena, ArenaAddress, ArenaLayout, Slot, SlotShape
from coupler.exchange.desk import Batch, Desk
from coupler.exchange.inprocess import InProcessTransport
from coupler.exchange.shared import SharedTransport
from coupler.exchange.transport import Answer, Load, Predict, Transport

__all__ = [
    "Answer",
    "Arena",
    "ArenaAddress",
    "ArenaLayout",
    "Batch",
    "Desk",
    "InProcessTransport",
    "Load",
    "Predict",
    "SharedTransport",
    "Slot",
    "SlotShape",
    "Transport",
]
