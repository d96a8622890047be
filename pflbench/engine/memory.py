"""What an experiment needs in memory, by arithmetic alone, and where its parts are put. Nothing here imports torch.

Three things grow: the data with the images, the bank of client states with the clients, and the work of a round with the
cohort and with the clients computed together. Placement changes no number, so it follows the machine.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

from pflbench.core.errors import BadInput

Place = Literal["device", "host", "file"]
STEP = 5  # models' worth of numbers in one step: state, its successor, gradient, velocity, and one for what the method adds
SHARE = 0.85  # of a memory that may be planned for; the rest is for libraries, fragments and the unforeseen
LABEL = 8  # bytes


@dataclass(frozen=True)
class Sizes:
    """What the arithmetic rests on. Numbers are counted, not weighed: ``number`` says how many bytes each has."""

    images: int  # to train and to test
    pixels: int  # bytes per image: channels x height x width
    clients: int  # C
    cohort: int  # M
    together: int  # clients computed at a time
    block: int  # clients whose models an evaluation holds at a time
    batch: int  # samples per step and client, B
    longest: int  # samples of the client with the most
    model: int  # numbers of one model, parameters and buffers
    server: int  # numbers of the server's state
    client: int  # numbers of one client's state
    upload: int  # numbers of one upload
    activations: int  # numbers that one sample leaves for the backward pass
    number: int = 4  # bytes per number


@dataclass(frozen=True)
class Budget:
    """Bytes. working: of one round or evaluation beside data and bank, were the data on the device; gathered: a round's
    images if they are not.
    """

    data: int
    bank: int
    working: int
    gathered: int


@dataclass(frozen=True)
class Placement:
    """data: on the device, or in host memory with a round's images gathered ahead. bank: where client states lie."""

    data: Place
    bank: Place


def budget(sizes: Sizes) -> Budget:
    """Bytes of an experiment's parts.

    Of a round: the server's state twice (received, merged); of each of the cohort its state before and after, and its
    upload; of each client computed now a step's numbers and activations. Of an evaluation: of each client of a block its
    state and its model, and a step if it is fine-tuned. The larger of the two counts. Of the images, if these lie
    elsewhere: one copy.
    """
    stored = sizes.pixels + LABEL
    cohort = sizes.cohort * (2 * sizes.client + sizes.upload)
    step = sizes.together * (STEP * sizes.model + sizes.batch * sizes.activations)
    evaluation = sizes.block * (sizes.client + sizes.model)
    return Budget(
        data=sizes.images * stored,
        bank=sizes.number * sizes.clients * sizes.client,
        working=sizes.number * (2 * sizes.server + max(cohort, evaluation) + step),
        gathered=sizes.together * sizes.longest * stored,
    )


def place(need: Budget, device: int | None, host: int) -> Placement:
    """Where data and client states go. device: bytes of the GPU, None if the host computes; host: bytes of its memory.

    A fixed rule. What a step touches comes first: the round's own work must fit, then the data, then the bank. Raises
    BadInput if the round's work does not fit.
    """
    room = int(SHARE * (host if device is None else device))
    if need.working > room:
        raise BadInput(
            "chunk", f"{need.working / 2**30:.1f} GiB for a round", f"too large for {room / 2**30:.1f} GiB; lower it"
        )
    spare = room - need.working
    if device is None:  # prepared data are mapped from their file: the system keeps in memory what fits
        return Placement("device", "device" if need.data + need.bank <= spare else "file")
    data: Place = "device" if need.data <= spare else "host"
    if data == "host" and need.gathered > spare:
        what = f"{(need.working + need.gathered) / 2**30:.1f} GiB for a round and its images"
        raise BadInput("chunk", what, f"too large for {room / 2**30:.1f} GiB; lower it")
    spare -= need.data if data == "device" else need.gathered
    if need.bank <= spare:
        return Placement(data, "device")
    left = int(SHARE * host) - (need.data if data == "host" else 0)
    return Placement(data, "host" if need.bank <= left else "file")


class Part(NamedTuple):
    """Bytes of one part of an experiment, and where they lie."""

    bytes: int
    place: Place

    def __str__(self) -> str:
        return f"{self.bytes / 2**20:,.1f} MiB, {self.place}"


def parts(need: Budget, where: Placement) -> dict[str, Part]:
    """The plan: what is held, by name."""
    found = {
        "data": Part(need.data, where.data),
        "client states": Part(need.bank, where.bank),
        "a round's work": Part(need.working, "device"),
    }
    return found | ({"a round's images": Part(need.gathered, "device")} if where.data == "host" else {})
