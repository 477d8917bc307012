"""A stand-in for SQS that accepts every message and keeps none: `python -m bench.queue_stub PORT`.

moto answers about a hundred sends a second, and ever fewer, so that it would be measured in place of the retry route.
This one speaks SQS' protocol to the real client as far as sending a message goes.
"""

from __future__ import annotations

import hashlib
import secrets
import sys

import orjson
from aiohttp import web

from devstack.ports import HOST


async def answer(request: web.Request) -> web.Response:
    if request.headers.get("X-Amz-Target") != "AmazonSQS.SendMessage":
        raise web.HTTPBadRequest(text="only SendMessage is known here")
    body = str(orjson.loads(await request.read())["MessageBody"]).encode()
    digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
    sent = {"MessageId": secrets.token_hex(16), "MD5OfMessageBody": digest}
    return web.Response(body=orjson.dumps(sent), content_type="application/x-amz-json-1.0")


if __name__ == "__main__":
    app = web.Application()
    app.router.add_post("/{path:.*}", answer)
    web.run_app(app, host=HOST, port=int(sys.argv[1]), access_log=None, print=None)
