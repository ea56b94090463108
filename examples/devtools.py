"""Chrome DevTools: open a page in Chromium, print its events, and take a screenshot."""

import re
from subprocess import PIPE

import trio

from trioglock import connect
from trioglock.codecs import JSON

CHROMIUM = "chromium --headless=new --remote-debugging-port=0 --no-sandbox --window-size=1600,1200"
NOISE = """data:text/html,<canvas width=1500 height=999></canvas><script>
let image = new ImageData(1500, 999); image.data.forEach((_, i, a) => a[i] = 255 * Math.random())
document.querySelector("canvas").getContext("2d").putImageData(image, 0, 0)</script>"""


async def open_page(chromium: trio.Process) -> str:
    output = b""
    while not (found := re.search(rb"(ws://\S+/)browser/\S+(?=\s)", output)):
        output += await chromium.stderr.receive_some()  # type: ignore[union-attr]
    async with connect(found[0].decode(), codec=JSON()) as conn:
        target = {"method": "Target.createTarget", "params": {"url": "about:blank"}}
        return f"{found[1].decode()}page/{(await conn.request(target))['result']['targetId']}"


async def main() -> None:
    chromium = await trio.lowlevel.open_process(CHROMIUM.split(), stderr=PIPE)
    async with connect(await open_page(chromium), codec=JSON(), max_size=2**26) as conn:
        await conn.request({"method": "Page.enable"})
        await conn.request({"method": "Page.navigate", "params": {"url": NOISE}})
        while (event := await conn.receive())["method"] != "Page.loadEventFired":
            print(event["method"])
        screenshot = await conn.request({"method": "Page.captureScreenshot"}, timeout=60)
        print(f"a screenshot of {len(screenshot['result']['data']):,} characters in base64")
        await conn.request({"method": "Browser.close"})
    await chromium.wait()


if __name__ == "__main__":
    trio.run(main)
