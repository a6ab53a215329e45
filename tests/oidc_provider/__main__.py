"""The provider's process: prints where it is, and ends when its standard input does."""

import argparse
import asyncio
import json
import socket
import sys
import threading

import uvicorn

from tests.oidc_provider.app import Provider


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--cert")
    parser.add_argument("--key")
    options = parser.parse_args()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        url = f"{'https' if options.cert else 'http'}://127.0.0.1:{port}"
        config = uvicorn.Config(
            Provider(url).app,
            log_level="warning",
            lifespan="off",
            ssl_certfile=options.cert,
            ssl_keyfile=options.key,
        )
        server = uvicorn.Server(config)

        def end_with_the_tests() -> None:
            sys.stdin.read()
            server.should_exit = True

        threading.Thread(target=end_with_the_tests, daemon=True).start()
        print(json.dumps({"url": url}), flush=True)
        asyncio.run(server.serve([listener]))


if __name__ == "__main__":
    main()
