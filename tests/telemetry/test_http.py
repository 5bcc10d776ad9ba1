"""The HTTP server over real sockets: what it answers, and what cannot wear it out."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tunnelswitch.config import load
from tunnelswitch.errors import TunnelswitchError
from tunnelswitch.telemetry import http
from tunnelswitch.telemetry.http import TelemetryServer
from tunnelswitch.telemetry.metrics import Metrics

DEPLOYMENT = load(Path(__file__).parents[2] / "deploy/example.toml")


class Served:
    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.server = TelemetryServer("127.0.0.1:1", Metrics(DEPLOYMENT, "gateway", "agent"), lambda: self.reasons)

    async def ask(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        try:
            writer.write(request)
            answer = await asyncio.wait_for(reader.read(), 20)
        finally:
            writer.close()
        head, _, body = answer.partition(b"\r\n\r\n")
        first, *lines = head.decode().split("\r\n")
        return int(first.split()[1]), dict(line.split(": ", 1) for line in lines), body

    async def get(self, path: str) -> tuple[int, dict[str, str], bytes]:
        return await self.ask(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())


@pytest.fixture
async def served(monkeypatch: pytest.MonkeyPatch, unused_tcp_port: int) -> AsyncIterator[Served]:
    served = Served()
    served.server._address = f"127.0.0.1:{unused_tcp_port}"
    await served.server.start()
    yield served
    await served.server.close()


async def test_metrics(served: Served) -> None:
    status, headers, body = await served.get("/metrics")
    assert (status, headers["Content-Type"]) == (200, "text/plain; version=0.0.4; charset=utf-8")
    assert len(body) == int(headers["Content-Length"])
    families = {family.name for family in text_string_to_metric_families(body.decode())}
    assert "tunnelswitch_switches" in families


async def test_health(served: Served) -> None:
    status, _, body = await served.get("/healthz?verbose")
    assert status == 200
    assert json.loads(body) == {"ready": True, "reasons": [], "site": "gateway", "process": "agent"}
    served.reasons = ["not connected to NATS yet"]
    status, _, body = await served.get("/healthz")
    assert status == 503
    assert json.loads(body)["reasons"] == ["not connected to NATS yet"]


@pytest.mark.parametrize(
    ("request_bytes", "expected"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", 404),
        (b"POST /metrics HTTP/1.1\r\n\r\n", 405),
        (b"\x16\x03\x01 hello\r\n\r\n", 400),
        (b"GET /metrics\r\n\r\n", 400),
        (b"GET /metrics HTTP/1.1\r\nX: " + b"x" * 20_000 + b"\r\n\r\n", 431),
    ],
)
async def test_other_requests(served: Served, request_bytes: bytes, expected: int) -> None:
    status, _, _ = await served.ask(request_bytes)
    assert status == expected


async def test_head(served: Served) -> None:
    status, headers, body = await served.ask(b"HEAD /metrics HTTP/1.1\r\n\r\n")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > 1000


async def test_slow_and_many_clients(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "REQUEST_SECONDS", 0.5)
    idle = [await asyncio.open_connection("127.0.0.1", served.server.port) for _ in range(http.CONNECTIONS_MAX + 4)]
    for reader, writer in idle:
        assert await asyncio.wait_for(reader.read(), 20) == b""
        writer.close()
    monkeypatch.undo()
    assert (await served.get("/healthz"))[0] == 200


async def test_a_client_that_leaves_early(served: Served) -> None:
    _, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    writer.write(b"GET /met")
    writer.close()
    assert (await served.get("/healthz"))[0] == 200


async def test_closing_drops_whoever_is_connected(served: Served) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", served.server.port)
    await asyncio.sleep(0.05)
    await asyncio.wait_for(served.server.close(), 20)
    assert await asyncio.wait_for(reader.read(), 20) == b""
    writer.close()


async def test_an_address_in_use(served: Served) -> None:
    second = TelemetryServer(f"127.0.0.1:{served.server.port}", Metrics(DEPLOYMENT, "gateway", "agent"), list)
    with pytest.raises(TunnelswitchError) as caught:
        await second.start()
    assert "Address already in use; stop the other process" in caught.value.diagnostics()


async def test_an_address_that_comes_up_later(unused_tcp_port: int) -> None:
    server = TelemetryServer(f"192.0.2.1:{unused_tcp_port}", Metrics(DEPLOYMENT, "gateway", "agent"), list)
    await server.start()
    await server.close()
