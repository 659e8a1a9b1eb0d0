"""`python -m pushy.native`: compiles the native path and says where it is."""

import sys

from pushy.native import NotBuilt, build


def main() -> int:
    try:
        print(build())
    except NotBuilt as why:
        print(f"not built: {why}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
