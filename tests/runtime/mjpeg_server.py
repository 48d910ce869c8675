"""Is a camera of the network: Motion JPEG over HTTP, in a process of its own.

`python mjpeg_server.py COUNT CONNECTIONS` prints its port, gives COUNT frames to each
of CONNECTIONS connections and refuses the others.
"""

import base64
import http.server
import sys
import time

import cv2

from tests.runtime.tiny_model import draw_scene


def main(count: int, connections: int) -> None:
    """Serves until it is ended."""
    jpeg = cv2.imencode(".jpg", draw_scene()[:64, :128, ::-1])[1].tobytes()
    head = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n"
    wanted = "Basic " + base64.b64encode(b"me:secret").decode()
    left = connections

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal left
            if self.headers["Authorization"] != wanted:
                self.send_response(401)
                self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                self.end_headers()
                return
            if left < 1:
                self.send_error(503)
                return
            left -= 1
            self.send_response(200)
            kind = "multipart/x-mixed-replace; boundary=frame"
            self.send_header("Content-Type", kind)
            self.end_headers()
            for _ in range(count):
                try:
                    self.wfile.write(head % len(jpeg) + jpeg + b"\r\n")
                except OSError:
                    return
                time.sleep(0.01)

        def log_message(self, *arguments: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
