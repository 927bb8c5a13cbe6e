"""Health check of a container: `health.py PORT PATH` ends with code 0 when the address answers 200, else with 1."""

from __future__ import annotations

import http.client
import sys


def healthy(port: int, path: str) -> bool:
    """Return whether this container's own port answers 200 within 3 seconds."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=3)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(0 if healthy(int(sys.argv[1]), sys.argv[2]) else 1)
