"""Film the page that steps through a * b + a, in Chromium: steps.gif

python docs/pictures/steps.py
"""

import io
import shutil
from pathlib import Path

from PIL import Image
from playwright.sync_api import sync_playwright

import minigrad as mg
from minigrad import plot

WIDTH, HEIGHT = 620, 560
HOLD = {"forward": 1000, "seed": 1600, "turn": 2000, "sent": 1700, "end": 3500}  # milliseconds
SEEK = "time => document.getAnimations().forEach(a => { a.pause(); a.currentTime = time; })"
FINISH = "() => document.getAnimations().forEach(a => a.finish())"

a, b = mg.tensor(2.0, requires_grad=True), mg.tensor(3.0, requires_grad=True)
page = plot.steps(a * b + a, names={"a": a, "b": b})
frames = []

with sync_playwright() as playwright:
    chromium = playwright.chromium.launch(
        executable_path=shutil.which("chromium"), args=["--no-sandbox"]
    )
    tab = chromium.new_page(viewport={"width": WIDTH, "height": HEIGHT})
    tab.set_content(page.html)

    def shoot(milliseconds):
        picture = Image.open(io.BytesIO(tab.screenshot())).convert("RGB")
        frames.append((picture, milliseconds))

    shoot(2 * HOLD["forward"])
    for _ in range(1, tab.evaluate("steps.length")):
        tab.evaluate("go(at + 1)")
        if tab.locator(".pill").count():
            for time in range(60, 900, 105):
                tab.evaluate(SEEK, time)
                shoot(90)
        tab.evaluate(FINISH)
        tab.wait_for_function("!document.querySelector('.pill')")
        shoot(HOLD[tab.evaluate("steps[at].kind")])
    chromium.close()

# One palette for all frames, from three of them, with a white that is white.
some = Image.new("RGB", (WIDTH, 3 * HEIGHT))
for i, (frame, _) in enumerate((frames[5], frames[len(frames) // 2], frames[-1])):
    some.paste(frame, (0, i * HEIGHT))
palette = some.quantize(96, dither=Image.Dither.NONE)
palette.putpalette([255 if level > 248 else level for level in palette.getpalette()])
first, *others = (frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame, _ in frames)
first.save(
    Path(__file__).with_suffix(".gif"), save_all=True, append_images=others, loop=0,
    duration=[milliseconds for _, milliseconds in frames], optimize=True,
)  # fmt: skip
