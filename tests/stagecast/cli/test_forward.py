"""The proxy of `stagecast dev` before the stage-map API."""

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route

from stagecast.cli.forward import Forward
from stagecast.http import serving


async def test_a_forwarded_answer_has_one_date() -> None:
    """The server in front sets its own; two are no valid answer (RFC 9110 §6.6.1)."""

    async def echo(request: Request) -> Response:
        return Response(await request.body(), 201, {"ETag": '"1"'})

    async with serving(Starlette(routes=[Route("/x", echo, methods=["POST"])]), "127.0.0.1:0") as behind:
        forward = Forward(behind)
        async with (
            serving(Starlette(routes=[Mount("/", forward)]), "127.0.0.1:0") as front,
            httpx.AsyncClient(trust_env=False) as http,
        ):
            got = await http.post(f"{front}/x?y=1", content=b"body")
            assert (got.status_code, got.content, got.headers["etag"]) == (201, b"body", '"1"')
            assert len(got.headers.get_list("date")) == 1
        await forward.close()
