"""What stands for a vLLM server: it takes embeddings as one does, and reads them with plain transformers."""

import base64
import io
import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread

import torch


@contextmanager
def serving(model):
    """The address of a server, and the embeddings that it was sent."""
    sent = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/completions"
            assert (asked["max_tokens"], asked["return_tokens_as_token_ids"]) == (1, True)
            choices = []
            for index, packed in enumerate(asked["prompt_embeds"]):
                embeds = torch.load(io.BytesIO(base64.b64decode(packed, validate=True)), weights_only=True)
                sent.append(embeds)
                with torch.no_grad():
                    likely = model(inputs_embeds=embeds[None]).logits[0, -1].log_softmax(-1)
                told = {f"token_id:{token}": float(likely[token]) for token in asked["logprob_token_ids"]}
                choices.append({"index": index, "logprobs": {"top_logprobs": [told]}})
            body = json.dumps({"choices": choices[::-1]}).encode()  # each says its place
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", sent
    finally:
        server.shutdown()
        server.server_close()
