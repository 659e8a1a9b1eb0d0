"""Which sessions of a worker are whose: by member and by device. Pure."""

from typing import Generic, Protocol, TypeVar


class Named(Protocol):
    @property
    def member(self) -> str: ...

    @property
    def device(self) -> str: ...


T = TypeVar("T", bound=Named)


class Directory(Generic[T]):
    """Most members have one device here, and most devices one session, so a name leads to a session itself, and to a tuple only
    where there are several."""

    def __init__(self) -> None:
        self.by_member: dict[str, T | tuple[T, ...]] = {}
        self.by_device: dict[str, T | tuple[T, ...]] = {}

    def __len__(self) -> int:
        return len(self.by_device)

    def add(self, session: T) -> None:
        for names, name in ((self.by_member, session.member), (self.by_device, session.device)):
            before = names.setdefault(name, session)
            if before is not session:
                names[name] = (*_several(before), session)

    def remove(self, session: T) -> None:
        for names, name in ((self.by_member, session.member), (self.by_device, session.device)):
            left = tuple(one for one in _several(names.get(name)) if one is not session)
            if len(left) > 1:
                names[name] = left
            elif left:
                names[name] = left[0]
            else:
                names.pop(name, None)

    def member(self, member: str) -> tuple[T, ...]:
        return _several(self.by_member.get(member))

    def device(self, device: str) -> tuple[T, ...]:
        return _several(self.by_device.get(device))


def _several(found: "T | tuple[T, ...] | None") -> tuple[T, ...]:
    if found is None:
        return ()
    return found if isinstance(found, tuple) else (found,)
