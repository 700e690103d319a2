"""Serves a model's folder as Inference Endpoints do: `endpoint_child.py SITE_PACKAGES FOLDER SLOW`, without this package.

To be run with `-I -S`, so that no .pth file is read and an editable installation of this package stays out of reach. Loads
FOLDER's handler.py, prints its port, and answers until it is killed; a request with the text SLOW takes 0.3 s more.
Shaped after huggingface-inference-toolkit (its webservice_starlette.py and utils.py), but stricter in one thing: there any
error becomes a 400, here ValueErrors alone.
"""

import importlib.util
import json
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def load_handler(folder: str):
    """An EndpointHandler, loaded the toolkit's way."""
    spec = importlib.util.spec_from_file_location("handler", f"{folder}/handler.py")
    sys.path.insert(0, folder)
    module = importlib.util.module_from_spec(spec)
    sys.modules["handler"] = module
    spec.loader.exec_module(module)
    return module.EndpointHandler(folder)


class Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.respond(200, "Ok")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        try:
            data = json.loads(body)
            if "inputs" not in data:
                raise ValueError("Body needs to provide a inputs key")
            self.respond(200, self.server.endpoint(data))
        except ValueError as error:
            self.respond(400, {"error": str(error)})
        except Exception as error:
            # What the handler turns away for want of room says by which status.
            self.respond(getattr(error, "status_code", 500), {"error": f"{type(error).__name__}: {error}"})

    def respond(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format, *args):
        """Nothing: standard output is for the port."""


class Server(ThreadingHTTPServer):
    request_queue_size = 128  # of connections that nobody has taken yet


if __name__ == "__main__":
    site_packages, folder, slow = sys.argv[1:]
    sys.path.append(site_packages)
    assert importlib.util.find_spec("tall_hf") is None
    server = Server(("127.0.0.1", 0), Requests)
    server.endpoint = load_handler(folder)
    assert not [name for name in sys.modules if name.split(".")[0] == "tall_hf"]
    assert type(server.endpoint.pipe.model).__module__.startswith("transformers_modules.")
    pipe = server.endpoint.pipe

    def answer(texts, **settings):
        time.sleep(0.3 if slow in texts else 0)
        return pipe(texts, **settings)

    server.endpoint.pipe = answer
    print(server.server_port, flush=True)
    server.serve_forever()
