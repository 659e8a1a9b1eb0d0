"""A disk that fails when told to: SQLite's own file layer, put beneath every file that is opened while it stands."""

import apsw


class FaultyDisk:
    """Use as a context manager. Files opened meanwhile work until `full` or `broken` is set, and again after."""

    def __init__(self) -> None:
        self.full = False
        """Nothing can be written: no space is left."""
        self.broken = False
        """Nothing reaches the platter: syncing the WAL fails after it was written."""
        self._layer: apsw.VFS | None = None

    def __enter__(self) -> "FaultyDisk":
        self._layer = _Layer(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._layer is not None
        self._layer.unregister()


class _Layer(apsw.VFS):
    def __init__(self, disk: FaultyDisk) -> None:
        super().__init__("faulty", "unix", makedefault=True)
        self._disk = disk

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File(self._disk, name, flags)


class _File(apsw.VFSFile):
    def __init__(self, disk: FaultyDisk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        super().__init__("unix", name, flags)
        self._disk = disk
        self._is_wal = bool(flags[0] & apsw.SQLITE_OPEN_WAL)

    def xWrite(self, data: bytes, offset: int) -> None:
        if self._disk.full:
            raise apsw.FullError("no space left on the faulty disk")
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:
        if self._disk.broken and self._is_wal:
            raise apsw.IOError("the faulty disk lost it")
        super().xSync(flags)
