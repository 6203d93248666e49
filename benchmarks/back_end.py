"""A study's back end that costs next to nothing: it gives prepared answers by path and participant.

    python -m benchmarks.back_end PORT FILE

FILE holds {"/path user_id": answer}.
"""

import asyncio
import json
import re
import sys
from pathlib import Path

USER = re.compile(rb'"user_id": ?"([^"]+)"')


class Answering(asyncio.Protocol):
    """A connection."""

    answers: dict[bytes, bytes]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.received = b""

    def data_received(self, data: bytes) -> None:
        """Answer as soon as the whole body has arrived."""
        self.received += data
        head, _, body = self.received.partition(b"\r\n\r\n")
        length = re.search(rb"(?i)content-length: (\d+)", head)
        if length is None or len(body) < int(length[1]):
            return
        user_id = USER.search(body)
        assert user_id is not None
        assert isinstance(self.transport, asyncio.Transport)
        self.transport.write(self.answers[head.split(b" ", 2)[1] + b" " + user_id[1]])
        self.received = b""


async def main(port: int, path: Path) -> None:
    """Serve the answers in the file at `path` for ever."""
    Answering.answers = {
        name.encode(): b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: "
        + f"{len(json.dumps(answer))}\r\n\r\n{json.dumps(answer)}".encode()
        for name, answer in json.loads(path.read_text()).items()
    }
    server = await asyncio.get_running_loop().create_server(Answering, "127.0.0.1", port)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
