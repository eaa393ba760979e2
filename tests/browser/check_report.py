"""Opens a report in headless Chromium and uses it; run by hand.

  pip install playwright
  MNER_CHROMIUM=/usr/bin/chromium python tests/browser/check_report.py \
    runs/synthetic/report.html [--screenshots=DIR]

On a wide screen and on a phone, light and dark: nothing on the console, no
request, no horizontal scrolling, readable contrast; filters, pages and the
heat map by mouse, keyboard and touch; hostile data stays text. The report
must have sentences with a picture, and with errors.
"""

import argparse
import base64
import json
import os
import pathlib
import re
import tempfile

from playwright.sync_api import expect, sync_playwright

from mner_jax.evaluation import report

DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}
SCREENS = {
  "desktop": (DESKTOP, "light"),
  "desktop_dark": (DESKTOP, "dark"),
  "phone": (PHONE, "light"),
  "phone_dark": (PHONE, "dark"),
}
HOSTILE = (
  "<script>window.hacked=1</script>",
  '"><img src=x onerror="window.hacked=1">',
  "</script><script>window.hacked=1</script>",
  "<!--<script>",
  "&lt;b&gt;",
  "a\u2028b",
  "<svg/onload=window.hacked=1>",
)
# The lowest contrast (WCAG 2) of the text in some elements on their ground.
CONTRAST = """selectors => {
  const context = document.createElement("canvas").getContext(
    "2d", {willReadFrequently: true});
  const rgba = (color) => {
    context.clearRect(0, 0, 1, 1);
    context.fillStyle = color;
    context.fillRect(0, 0, 1, 1);
    return [...context.getImageData(0, 0, 1, 1).data];
  };
  const luminance = (rgb) => rgb.slice(0, 3)
    .map((c) => c / 255)
    .map((c) => c <= .03928 ? c / 12.92 : ((c + .055) / 1.055) ** 2.4)
    .reduce((sum, c, i) => sum + c * [.2126, .7152, .0722][i], 0);
  let worst = [99, ""];
  for (const node of document.querySelectorAll(selectors)) {
    let ground = node;
    while (rgba(getComputedStyle(ground).backgroundColor)[3] < 255) {
      ground = ground.parentElement;
    }
    const pair = [getComputedStyle(node).color,
                  getComputedStyle(ground).backgroundColor]
      .map((c) => luminance(rgba(c)) + .05);
    const ratio = Math.max(...pair) / Math.min(...pair);
    if (ratio < worst[0]) worst = [ratio, node.className + node.tagName];
  }
  return worst;
}"""


def data_of(path):
  """The JSON object that a report was rendered from."""
  pattern = r'<script type="application/json" id="data">(.*?)</script>'
  return json.loads(re.search(pattern, path.read_text(), re.DOTALL)[1])


def opened(browser, path, screen):
  """The opened report, and a list that console messages and requests fill."""
  size, scheme = SCREENS[screen]
  context = browser.new_context(
    viewport=size, color_scheme=scheme, has_touch=screen.startswith("phone")
  )
  page, complaints = context.new_page(), []
  page.on("console", lambda message: complaints.append(message.text))
  page.on("pageerror", lambda error: complaints.append(str(error)))
  page.on("dialog", lambda dialog: complaints.append(dialog.message))

  def check(request):
    if not request.url.startswith(("data:", path.as_uri())):
      complaints.append(request.url)

  page.on("request", check)
  page.goto(path.as_uri())
  return page, complaints


def number_found(page):
  """The number of sentences in the status line."""
  return int(page.locator("#status").inner_text().split()[0].replace(",", ""))


def has_wrong(sentence, type_=""):
  return any(
    kind != "correct" and type_ in ("", gold, predicted)
    for _, _, gold, predicted, kind in sentence["entities"]
  )


def check_filters(page, data):
  """Checks the status line's counts against the data's; pages."""
  sentences, form = data["sentences"], page.locator("#filters")
  total = len(sentences)
  assert number_found(page) == total
  type_ = data["confusion"]["types"][0]
  form.locator("[name=kind]").select_option("wrong")
  wrong = [s for s in sentences if has_wrong(s)]
  assert 0 < number_found(page) == len(wrong) <= total
  form.locator("[name=type]").select_option(type_)
  wrong = [s for s in wrong if has_wrong(s, type_)]
  assert number_found(page) == len(wrong)
  shown = page.locator("article")
  assert shown.count() == min(20, len(wrong))
  for i in range(shown.count()):
    chips = shown.nth(i).locator(".chip").all_inner_texts()
    assert any(type_ in chip for chip in chips)
  # By keyboard.
  form.locator("[name=type]").focus()
  page.keyboard.press("Home")
  page.keyboard.press("Shift+Tab")
  page.keyboard.press("End")
  expect(form.locator("[name=kind]")).to_have_value("right")
  expect(form.locator("[name=type]")).to_have_value("")
  right = [s for s in sentences if not has_wrong(s)]
  assert number_found(page) == len(right)
  page.get_by_role("button", name="Clear").click()
  expect(page.locator("#status")).to_have_text(f"{total:,} sentences")
  languages = sorted({s["language"] for s in sentences})
  if len(languages) > 1:
    form.locator("[name=language]").select_option(languages[-1])
    of_language = [s for s in sentences if s["language"] == languages[-1]]
    assert number_found(page) == len(of_language)
    form.locator("[name=language]").select_option("")
  word = sentences[-1]["words"][0].lower()
  form.locator("[name=text]").focus()
  page.keyboard.type(word.upper())
  with_word = [s for s in sentences if word in " ".join(s["words"]).lower()]
  assert number_found(page) == len(with_word)
  form.locator("[name=text]").fill("no such text \u2603")
  assert number_found(page) == 0 and page.locator("article").count() == 0
  page.get_by_role("button", name="Clear").click()
  expect(page.locator("#status")).to_have_text(f"{total:,} sentences")
  if total > 20:
    first = page.locator("article").first.get_attribute("aria-label")
    page.get_by_role("button", name="Next").press("Enter")
    assert page.locator("#page").inner_text().startswith("Page 2 of ")
    assert page.locator("article").first.get_attribute("aria-label") != first
    assert page.evaluate("document.activeElement.id") == "status"
    page.get_by_role("button", name="Previous").press("Enter")
    assert page.locator("article").first.get_attribute("aria-label") == first


def brightest(article):
  """(number of patches, index of the brightest) of the heat map shown."""
  opacity = article.locator("svg rect").evaluate_all(
    "rects => rects.map((r) => +r.getAttribute('fill-opacity'))"
  )
  return len(opacity), opacity.index(max(opacity)) if opacity else None


def check_heat_map(page, data, touch):
  """By mouse or touch, then by keyboard alone."""
  size = data["grid"] ** 2
  article = page.locator("article:has([data-word])").first
  number = int(article.get_attribute("aria-label").split()[1])
  (sentence,) = (s for s in data["sentences"] if s["number"] == number)
  patches = base64.b64decode(sentence["attention"]["patches"])

  def expected(word):
    part = patches[word * size : (word + 1) * size]
    return size, part.index(max(part))

  words = article.locator("[data-word]")
  caption = article.locator("figcaption")
  assert words.count() == len(sentence["words"]) > 2
  assert words.all_inner_texts() == sentence["words"]
  page.mouse.move(2, 2)
  assert brightest(article) == (0, None)
  if touch:
    words.nth(1).tap()
    assert brightest(article) == expected(1)
    words.nth(1).tap()
    page.evaluate("document.activeElement.blur()")
  else:
    words.nth(1).hover()
    assert brightest(article) == expected(1)
    assert sentence["words"][1] in caption.inner_text()
    page.mouse.move(2, 2)
  assert brightest(article) == (0, None)
  # One stop of the tab key a sentence; arrows within.
  page.locator("#filters button").focus()
  for _ in range(200):
    page.keyboard.press("Tab")
    if page.evaluate("document.activeElement.dataset.word") is not None:
      break
  page.keyboard.press("Home")
  expect(words.first).to_be_focused()
  assert brightest(article) == expected(0)
  outline = words.first.evaluate(
    "w => [getComputedStyle(w).outlineStyle, getComputedStyle(w).outlineWidth]"
  )
  assert outline[0] != "none" and outline[1] >= "2px", outline
  page.keyboard.press("ArrowRight")
  expect(words.nth(1)).to_be_focused()
  assert brightest(article) == expected(1)
  page.keyboard.press("End")
  last = words.count() - 1
  expect(words.nth(last)).to_be_focused()
  page.keyboard.press("ArrowRight")
  expect(words.nth(last)).to_be_focused()
  page.keyboard.press("Enter")
  expect(words.nth(last)).to_have_attribute("aria-pressed", "true")
  page.keyboard.press("Tab")
  expect(words.nth(last)).not_to_be_focused()
  assert brightest(article) == expected(last)  # kept
  page.keyboard.press("Shift+Tab")
  expect(words.nth(last)).to_be_focused()
  page.keyboard.press("Escape")
  page.keyboard.press("Tab")
  assert brightest(article) == (0, None)


def check_look(page):
  """No sideways scrolling; contrast as WCAG 2 AA asks."""
  width = page.evaluate("document.documentElement.scrollWidth")
  assert width <= page.viewport_size["width"], width
  page.locator("article").first.scroll_into_view_if_needed()
  ratio, where = page.evaluate(
    CONTRAST,
    "p, td, th, h1, h2, b, a, label, .chip, .chip em, .meta, .word, summary,"
    " figcaption, button:not(:disabled)",
  )
  assert ratio >= 4.5, (ratio, where)


def check_hostile(browser, data, folder):
  """The same report, but every text of the data is hostile."""
  data = json.loads(json.dumps(data))
  first = data["sentences"][0]
  first["words"] = list(HOSTILE) + first["words"][len(HOSTILE) :]
  first["entities"] = [(0, 2, HOSTILE[0], HOSTILE[1], "type")]
  for name in ("language", "source", "origin", "image"):
    first[name] = HOSTILE[1]
  data["name"] = data["split"] = data["note"] = HOSTILE[2]
  data["remarks"] = list(HOSTILE)
  data["run"] = data["data"] = [[text, text] for text in HOSTILE]
  data["confusion"]["types"][:2] = HOSTILE[:2]
  group = data["scores"][-1]
  group["name"] = group["rows"][0]["name"] = HOSTILE[1]
  data["curves"][HOSTILE[1]] = [[1, 1.0], [2, 2.0]]
  path = folder / "hostile.html"
  path.write_text(report.render(data))
  page, complaints = opened(browser, path, "desktop")
  words = page.locator("article").first.locator(".word").all_text_contents()
  assert words[: len(HOSTILE)] == list(HOSTILE)
  page.locator("article").first.locator(".word").first.hover()
  page.locator("[name=type]").select_option(HOSTILE[1])
  assert page.evaluate("window.hacked") is None
  assert page.locator("script").count() == 2
  assert page.locator("img:not([src^='data:image/webp'])").count() == 0
  assert not complaints, complaints
  # Even markup that got in could not run: the policy knows the hash of one
  # script.
  page.evaluate(
    "document.body.insertAdjacentHTML('beforeend',"
    " '<img src=x onerror=\"window.hacked=1\">')"
  )
  page.wait_for_timeout(200)
  assert page.evaluate("window.hacked") is None


def main():
  """Checks one report."""
  parser = argparse.ArgumentParser()
  parser.add_argument("report", type=pathlib.Path)
  parser.add_argument("--screenshots", type=pathlib.Path)
  arguments = parser.parse_args()
  path = arguments.report.resolve()
  data = data_of(path)
  with (
    sync_playwright() as playwright,
    tempfile.TemporaryDirectory() as scratch,
  ):
    browser = playwright.chromium.launch(
      executable_path=os.environ.get("MNER_CHROMIUM"), args=["--no-sandbox"]
    )
    for screen in SCREENS:
      page, complaints = opened(browser, path, screen)
      check_look(page)
      check_filters(page, data)
      check_heat_map(page, data, touch=screen.startswith("phone"))
      if folder := arguments.screenshots:
        folder.mkdir(parents=True, exist_ok=True)
        page.screenshot(path=folder / f"{screen}.png", full_page=True)
      assert not complaints, complaints
      print(f"{screen}: fine")
    check_hostile(browser, data, pathlib.Path(scratch))
    print("hostile data: fine")
    browser.close()


if __name__ == "__main__":
  main()
