"""nginx in front of what tests run, with a configuration of theirs."""

import http.client
import re
from dataclasses import dataclass
from pathlib import Path

from tests.e2e.processes import Background, environment, find, free_port, wait_until


class Nginx:
    """nginx with this configuration, which writes nothing outside the folder."""

    def __init__(self, folder: Path, text: str) -> None:
        folder.mkdir(parents=True)
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"):
            text = text.replace("http {", f"http {{ {kind}_temp_path {folder}/{kind};", 1)
        config = folder / "nginx.conf"
        config.write_text(f"daemon off; user root; pid {folder}/pid;\n{text}")
        self.process = Background(
            [find("nginx"), "-p", folder, "-c", config],
            env=environment(folder),
            log=folder / "log",
        )

    def log(self) -> str:
        return self.process.log()

    def stop(self) -> None:
        self.process.stop()


@dataclass(frozen=True)
class Asked:
    """A request that came by."""

    method: str
    path: str
    status: int
    received_bytes: int
    is_authorized: bool
    """Whether it showed an `Authorization`."""


class Disturbance:
    """nginx between clients and a registry on 127.0.0.1, which does what it is told beside."""

    def __init__(
        self, folder: Path, port: int, *, inside: str = "", beside: str = "", above: str = ""
    ) -> None:
        """Start it. The directives go `inside` what passes requests on, `beside` that, and `above`
        the server."""
        self.port = free_port()
        self._folder = folder
        self._nginx = Nginx(
            folder,
            f"""
            error_log stderr error;
            events {{ worker_connections 256; }}
            http {{
                map $http_authorization $is_authorized {{ default 1; "" 0; }}
                log_format asked "$request_method $uri $status $request_length $is_authorized";
                access_log {folder}/asked asked;
                client_max_body_size 0;
                default_type application/json;
                {above}
                server {{
                    listen 127.0.0.1:{self.port};
                    proxy_http_version 1.1;
                    proxy_set_header Host $http_host;
                    proxy_request_buffering off;
                    proxy_buffering off;
                    location = /of-the-tests {{ access_log off; return 204; }}
                    set $registry http://127.0.0.1:{port};
                    {beside}
                    location / {{
                        {inside}
                        proxy_pass $registry;
                    }}
                }}
            }}
            """,
        )
        wait_until(self._answers, timeout=20, what="nginx")

    def _answers(self) -> bool:
        assert self._nginx.process.is_running, self._nginx.log()
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/of-the-tests")
            return connection.getresponse().status == 204
        except OSError:
            return False
        finally:
            connection.close()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def asked(self, method: str = ".*", path: str = ".*") -> list[Asked]:
        """What was asked for so far, of these methods and paths (regular expressions)."""
        found = []
        for line in (self._folder / "asked").read_text().splitlines():
            each_method, each_path, status, received, is_authorized = line.split()
            if re.fullmatch(method, each_method) and re.fullmatch(path, each_path):
                found.append(
                    Asked(each_method, each_path, int(status), int(received), is_authorized == "1")
                )
        return found

    def log(self) -> str:
        return self._nginx.log()

    def stop(self) -> None:
        self._nginx.stop()
