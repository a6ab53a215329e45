"""Backing up a server on PostgreSQL and a bucket, as docs/operations.md has it."""

import shutil
import sys
import time
from pathlib import Path

import pytest

from tests.e2e.conftest import ServerFactory
from tests.e2e.pairs import REPLICATED, Storage
from tests.e2e.processes import environment, run
from tests.e2e.server import LAYOVER
from tests.e2e.test_server_life import NO_BUILDER
from tests.e2e.traffic import EAGER, THREADS, Traffic, check_all
from tests.objects import ACCESS_KEY, REGION, SECRET_KEY, S3Server
from tests.postgres import Postgres, programs

pytestmark = pytest.mark.pairs(REPLICATED)

# What `rclone copy` would do, an object at a time.
_COPY = """
import sys, botocore.session
url, region, key, secret, bucket, source, target = sys.argv[1:]
client = botocore.session.get_session().create_client(
    "s3", endpoint_url=url, region_name=region, aws_access_key_id=key, aws_secret_access_key=secret
)
for page in client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=source + "/"):
    for found in page.get("Contents", ()):
        body = client.get_object(Bucket=bucket, Key=found["Key"])["Body"].read()
        client.put_object(Bucket=bucket, Key=target + found["Key"][len(source):], Body=body)
"""


def test_a_dump_and_then_the_bucket_are_a_backup_while_nothing_is_collected(
    start_server: ServerFactory,
    own_folder: Path,
    storage: Storage,
    postgres: Postgres,
    s3: S3Server,
) -> None:
    server = start_server(settings=EAGER)
    url, bucket = storage.settings["DATABASE_URL"], storage.settings["BLOB_STORE_URL"]
    name, _, source = bucket.removeprefix("s3://").partition("/")
    copy = s3.bucket()
    target = copy.url.removeprefix(f"s3://{name}/")
    script = own_folder / "copy_bucket.py"
    script.write_text(_COPY)
    access = f"{s3.url} {REGION} {ACCESS_KEY} '{SECRET_KEY}'"
    traffic = [Traffic(server, number) for number in range(THREADS)]
    try:
        while sum(one.rounds for one in traffic) < 30:
            assert not any(one.error for one in traffic)
            time.sleep(0.01)
        run(
            [
                *(LAYOVER, "admin", "hold", "--data-dir", server.data_folder, "--", "sh", "-c"),
                f"{programs()}/pg_dump -Fc -f {own_folder}/dump {url}"
                # Longer than whatever was deleted meanwhile is still leased.
                f" && sleep 8 && {sys.executable} {script} {access} {name} {source} {target}",
            ],
            env=server.env,
            timeout=300,
        )
    finally:
        for one in traffic:
            one.stop()
    server.stop()
    with postgres.database("template0") as restored_url:
        run(
            [programs() / "pg_restore", "-d", restored_url, own_folder / "dump"],
            env=environment(own_folder),
        )
        data_folder = own_folder / "restored"
        data_folder.mkdir()
        shutil.copy(server.data_folder / "admin-token", data_folder)
        restored = start_server(
            data_folder=data_folder,
            settings={**NO_BUILDER, "DATABASE_URL": restored_url, "BLOB_STORE_URL": copy.url},
        )
        assert check_all(restored) > 5
        keys = {key for (key,) in postgres.execute("SELECT key FROM blobs", _name(restored_url))}
        assert keys <= set(s3.keys(copy))
        restored.stop()


def _name(url: str) -> str:
    return url.rpartition("/")[2]
