"""Opens a report in headless Chromium and uses it; run by hand.

  pip install playwright
  MNER_CHROMIUM=/usr/bin/chromium python tests/browser/check_report.py \
    runs/synthetic/report.html

On a wide screen and on a phone, light and dark: nothing on the console, no
request, no horizontal scrolling, readable contrast; filters, pages and the
heat map by mouse, keyboard and touch; hostile data stays text. The report
must have sentences with a picture, and with errors.
"""

import base64
import itertools
import json
import os
import pathlib
import re
import sys
import tempfile

import numpy as np
from playwright.sync_api import expect, sync_playwright

from mner_jax.evaluation import report

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
HOSTILE = (
  '"><img src=x onerror="window.hacked=1">',
  "</script><script>window.hacked=1</script>",
  "<!--<script>&lt;b&gt;\u2028",
)
TEXT = (
  "p, td, th, h1, h2, b, a, label, .chip, .chip em, .meta, .word, summary,"
  " figcaption, button:not(:disabled)"
)
# [name, RGBA of its text, RGBA of what is behind it] of some elements.
COLOURS = """selectors => {
  const options = {willReadFrequently: true};
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", options);
  const rgba = (node, name) => {
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = getComputedStyle(node)[name];
    canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data];
  };
  return [...document.querySelectorAll(selectors)].map((node) => {
    let ground = node;
    while (rgba(ground, "backgroundColor")[3] < 255)
      ground = ground.parentElement;
    const name = node.tagName + "." + node.className;
    return [name, rgba(node, "color"), rgba(ground, "backgroundColor")];
  });
}"""


def opened(browser, path, size="desktop", scheme="light"):
  """Returns the opened report and a list of console messages and requests."""
  width, height = SIZES[size]
  view = {"viewport": {"width": width, "height": height}}
  touch = {"has_touch": size == "phone"}
  page = browser.new_page(color_scheme=scheme, **view, **touch)
  complaints = []

  def complain(found):
    text = getattr(found, "url", None) or str(found)
    if not text.startswith(("data:", path.as_uri())):
      complaints.append(text)

  for event in ("console", "pageerror", "request"):
    page.on(event, complain)
  page.goto(path.as_uri())
  return page, complaints


def check_look(page):
  """No sideways scrolling; contrast as WCAG 2 AA asks."""
  width = page.evaluate("document.documentElement.scrollWidth")
  assert width <= page.viewport_size["width"], width
  for name, *colours in page.evaluate(COLOURS, TEXT):
    rgb = np.array(colours)[:, :3] / 255
    gamma = ((rgb + 0.055) / 1.055) ** 2.4
    linear = np.where(rgb <= 0.03928, rgb / 12.92, gamma)
    dark, light = sorted(linear @ [0.2126, 0.7152, 0.0722])
    assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, colours)


def check_filters(page, data):
  """Each filter finds as many sentences as the data has; pages."""
  form, articles = page.locator("#filters"), page.locator("article")

  def check(wanted):
    count = sum(map(wanted, data["sentences"]))
    expect(page.locator("#status")).to_have_text(re.compile(f"^{count:,} "))
    expect(articles).to_have_count(min(count, 20))
    return count

  def has_wrong(sentence, types):
    wrong = (e for e in sentence["entities"] if e[4] != "correct")
    return any({e[2], e[3]} & set(types) for e in wrong)

  types = data["confusion"]["types"]
  last = data["sentences"][-1]
  language, word = last["language"], last["words"][0].lower()
  form.locator("[name=kind]").select_option("wrong")
  assert check(lambda s: has_wrong(s, types)) > 0
  form.locator("[name=type]").select_option(types[0])
  check(lambda s: has_wrong(s, types[:1]))
  # By keyboard: all types, no errors.
  form.locator("[name=type]").focus()
  for key in ("Home", "Shift+Tab", "End"):
    page.keyboard.press(key)
  check(lambda s: not has_wrong(s, types))
  page.get_by_role("button", name="Clear").click()
  if form.locator("[name=language]").is_visible():
    form.locator("[name=language]").select_option(language)
  check(lambda s: s["language"] == language)
  page.get_by_role("button", name="Clear").click()
  form.locator("[name=text]").press_sequentially(word.upper())
  check(lambda s: word in " ".join(s["words"]).lower())
  page.get_by_role("button", name="Clear").click()
  if check(lambda s: True) > 20:
    first = articles.first.get_attribute("aria-label")
    page.get_by_role("button", name="Next").press("Enter")
    expect(page.locator("#status")).to_be_focused()
    expect(articles.first).not_to_have_attribute("aria-label", first)


def check_heat_map(page, data, touch):
  """By mouse or touch, then by keyboard alone."""
  article = page.locator("article:has([data-word])").first
  number = int(article.get_attribute("aria-label").split()[1])
  (sentence,) = (s for s in data["sentences"] if s["number"] == number)
  patches = base64.b64decode(sentence["attention"]["patches"])
  patches = np.frombuffer(patches, np.uint8).reshape(-1, data["grid"] ** 2)
  words, last = article.locator("[data-word]"), len(sentence["words"]) - 1
  assert words.all_inner_texts() == sentence["words"]

  def check(word):  # None = no heat map
    opacity = article.locator("svg rect").evaluate_all(
      "rects => rects.map((r) => +r.getAttribute('fill-opacity'))"
    )
    assert len(opacity) == (0 if word is None else patches.shape[1])
    assert word is None or np.argmax(opacity) == patches[word].argmax()

  check(None)
  words.nth(1).tap() if touch else words.nth(1).hover()
  check(1)
  expect(article.locator("figcaption")).to_contain_text(sentence["words"][1])
  if touch:
    words.nth(1).tap()
    page.evaluate("document.activeElement.blur()")
  else:
    page.mouse.move(2, 2)
  check(None)
  # The tab key stops once in a sentence; arrows move within.
  words.first.focus()
  moves = ("Home", 0), ("ArrowRight", 1), ("End", last), ("ArrowRight", last)
  for key, word in moves:
    page.keyboard.press(key)
    expect(words.nth(word)).to_be_focused()
    expect(words.nth(word)).not_to_have_css("outline-style", "none")
    check(word)
  page.keyboard.press("Enter")
  expect(words.nth(last)).to_have_attribute("aria-pressed", "true")
  for key, focused in (("Tab", 0), ("Shift+Tab", 1)):
    page.keyboard.press(key)
    expect(article.locator("[data-word]:focus")).to_have_count(focused)
    check(last)  # is kept
  page.keyboard.press("Escape")
  page.keyboard.press("Tab")
  check(None)


def check_hostile(browser, data, path):
  """The same report, but every text of the data is hostile."""
  markup, script, _ = HOSTILE
  first, group = data["sentences"][0], data["scores"][-1]
  first["words"][: len(HOSTILE)] = HOSTILE
  first["entities"] = [(0, 2, script, markup, "type")]
  first |= dict.fromkeys(("language", "source", "origin", "image"), markup)
  data |= dict.fromkeys(("name", "split", "note"), script)
  data |= {"remarks": HOSTILE, "run": [HOSTILE[:2]], "data": [HOSTILE[:2]]}
  data["confusion"]["types"][:2] = script, markup
  group["name"] = group["rows"][0]["name"] = markup
  data["curves"][markup] = [[1, 1.0], [2, 2.0]]
  path.write_text(report.render(data))
  page, complaints = opened(browser, path)
  words = page.locator("article").first.locator(".word")
  assert words.all_text_contents()[: len(HOSTILE)] == list(HOSTILE)
  words.first.hover()
  page.locator("[name=type]").select_option(markup)
  assert page.locator("script").count() == 2
  assert page.locator("img:not([src^='data:image/webp'])").count() == 0
  assert not complaints, complaints
  # Even markup that got in could not run: the policy forbids it.
  page.evaluate("text => document.body.innerHTML += text", markup)
  page.wait_for_timeout(200)
  assert page.evaluate("window.hacked") is None


def main():
  """Checks the report named on the command line."""
  path = pathlib.Path(sys.argv[1]).resolve()
  pattern = r'<script type="application/json" id="data">(.*?)</script>'
  data = json.loads(re.search(pattern, path.read_text(), re.DOTALL)[1])
  options = {"executable_path": os.environ.get("MNER_CHROMIUM")}
  with sync_playwright() as playwright, tempfile.TemporaryDirectory() as folder:
    browser = playwright.chromium.launch(**options, args=["--no-sandbox"])
    for size, scheme in itertools.product(SIZES, ("light", "dark")):
      page, complaints = opened(browser, path, size, scheme)
      check_look(page)
      check_filters(page, data)
      check_heat_map(page, data, touch=size == "phone")
      assert not complaints, complaints
    check_hostile(browser, data, pathlib.Path(folder) / "hostile.html")


if __name__ == "__main__":
  main()
