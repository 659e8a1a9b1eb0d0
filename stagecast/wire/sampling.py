"""Which devices acknowledge a broadcast: a hash every device computes for itself, so nobody keeps a list."""

_MASK = 0xFFFFFFFF


def ack_hash(device: str, gen: int, seq: int) -> int:
    """fmix32(FNV-1a-32(UTF-8 of `device|gen|seq`)), in 0 … 2^32 − 1; a device acks iff it is below the policy's `p`.

    FNV-1a: http://www.isthe.com/chongo/tech/comp/fnv/; fmix32: the finisher of MurmurHash3 (A. Appleby), which spreads FNV's weak
    high bits.
    """
    h = 0x811C9DC5
    for byte in f"{device}|{gen}|{seq}".encode():
        h = (h ^ byte) * 0x01000193 & _MASK
    h = (h ^ h >> 16) * 0x85EBCA6B & _MASK
    h = (h ^ h >> 13) * 0xC2B2AE35 & _MASK
    return h ^ h >> 16
