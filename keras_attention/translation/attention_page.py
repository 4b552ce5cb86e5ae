"""Attention as a self-contained HTML page, one file without external scripts or images."""

from __future__ import annotations

import html
import json
import pathlib
from collections.abc import Sequence

from keras_attention.files import write_text
from keras_attention.metrics.plots import visible
from keras_attention.translation.hypothesis import Hypothesis

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 60rem; padding: 0 1rem;
  color: #1b1b1b; background: #fff }}
h1 {{ font-size: 1.1rem }}
section {{ border-top: 1px solid #ccc; padding: 1rem 0 }}
.words {{ margin: .4rem 0; padding: 0; list-style: none; display: flex; flex-wrap: wrap; gap: .25rem }}
.words li {{ padding: .15rem .45rem; border-radius: .3rem; border: 1px solid #ddd;
  white-space: pre }}
.output li {{ cursor: pointer }}
.output li.on {{ border-color: #08519c; outline: 2px solid #08519c }}
.label {{ color: #666; font-size: .85rem }}
</style>
<h1>{title}</h1>
<p class="label">Point at a word of the output, tap it, or move to it with the Tab key: the words of the source that it
attends to light up.</p>
{sections}
<script>
const weights = {weights};
document.querySelectorAll("section").forEach((section, number) => {{
  const source = [...section.querySelectorAll(".source li")];
  const output = [...section.querySelectorAll(".output li")];
  const show = t => {{
    output.forEach((word, i) => word.classList.toggle("on", i === t));
    source.forEach((word, s) => {{
      const weight = t < 0 ? 0 : weights[number][t][s];
      word.style.background = `rgba(8, 81, 156, ${{weight}})`;
      word.style.color = weight > 0.5 ? "#fff" : "";
      word.title = t < 0 ? "" : weight.toFixed(3);
    }});
  }};
  output.forEach((word, t) => {{
    for (const event of ["mouseenter", "focus", "click"]) word.addEventListener(event, () => show(t));
  }});
  section.addEventListener("mouseleave", () => show(-1));
}});
</script>
</html>
"""


def write_attention_page(
    path: str | pathlib.Path,
    hypotheses: Sequence[Hypothesis],
    title: str = "What each word attends to",
    sources: Sequence[str] | None = None,
) -> None:
    """Write a page with a section for each hypothesis; hovering over an output token highlights its sources.

    Args:
        path: the file to write.
        hypotheses: hypotheses to show.
        title: title of the page.
        sources: text of each source.

    Raises UserError when the file cannot be written.
    """
    sections = []
    texts = [""] * len(hypotheses) if sources is None else sources
    for hypothesis, text in zip(hypotheses, texts, strict=True):
        source = "".join(f"<li>{_word(token)}</li>" for token in hypothesis.source_tokens)
        output = "".join(f'<li tabindex="0">{_word(token)}</li>' for token in hypothesis.tokens)
        sections.append(
            f'<section>\n<div class="label">source{f": {html.escape(text)}" * bool(text)}</div>\n'
            f'<ul class="words source">{source}</ul>\n'
            f'<div class="label">output: {html.escape(hypothesis.text)}</div>\n'
            f'<ul class="words output">{output}</ul>\n</section>'
        )
    weights = [[[round(float(w), 4) for w in row] for row in hypothesis.alignment] for hypothesis in hypotheses]
    page = PAGE.format(title=html.escape(title), sections="\n".join(sections), weights=json.dumps(weights))
    # A lone surrogate, as from an argument that is not UTF-8, cannot be encoded in UTF-8.
    write_text(path, page.encode("utf-8", "replace").decode("utf-8"))


def _word(token: str) -> str:
    return html.escape(visible(token))
