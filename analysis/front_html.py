"""The HTML around the interactive Pareto front: `PAGE.substitute(...)` with escaped texts.

Its content security policy forbids every request: the page works offline and tells nobody that it was read.
"""

from __future__ import annotations

from string import Template

PAGE = Template("""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; script-src 'unsafe-inline'; \
style-src 'unsafe-inline'; img-src data: blob:">
<title>$title</title>
<style>
:root { color-scheme: light; }
body {
  margin: 0 auto; max-width: 1080px; padding: 1rem;
  font: 16px/1.5 system-ui, sans-serif; color: #1a1a1a; background: #fff;
}
h1 { font-size: 1.4rem; margin: 0 0 .25rem; overflow-wrap: anywhere; }
figure { margin: 1rem 0; }
figcaption { margin-top: .75rem; }
.scroll { margin-bottom: 1rem; }
figcaption, footer { color: #4d4d4d; font-size: .875rem; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; }
table {
  border-collapse: collapse; font-size: .875rem; font-variant-numeric: tabular-nums; white-space: nowrap;
}
caption { text-align: left; font-weight: 600; padding: .25rem 0; }
th, td { padding: .25rem .75rem .25rem 0; text-align: right; border-bottom: 1px solid #e6e6e6; }
th:first-child { text-align: left; }
button { font: inherit; cursor: pointer; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; font-size: .875rem; }
dd { margin: 0; }
#toast {
  position: fixed; left: 50%; bottom: 1.5rem; transform: translateX(-50%); padding: .5rem 1rem;
  border-radius: .375rem; background: #1a1a1a; color: #fff;
  opacity: 0; transition: opacity .2s; pointer-events: none;
}
#toast.shown { opacity: 1; }
</style>
</head>
<body>
<main>
<h1>$title</h1>
<p>Up and to the left is better. Hover over a point for its numbers and settings; click it to copy its
recipe.</p>
<figure aria-label="Robust accuracy against latency; the front is also in the table below">
<noscript><p>The plot needs JavaScript; the table below does not.</p></noscript>
$plot
<figcaption>$caption</figcaption>
</figure>
<div class="scroll" role="region" aria-labelledby="front-caption" tabindex="0">
<table>
<caption id="front-caption">The front, fastest first</caption>
<thead><tr><th scope="col">trial</th><th scope="col">epoch</th><th scope="col">p50 (ms)</th>\
<th scope="col">p95 (ms)</th><th scope="col">robust [95%] (%)</th><th scope="col">seeds</th>\
<th scope="col">P(front)</th><th scope="col">natural (%)</th>\
<th scope="col">PGD (%)</th><th scope="col">FGSM (%)</th><th scope="col">CW (%)</th>\
<th scope="col">masking checks</th><th scope="col">recipe</th></tr></thead>
<tbody>
$rows
</tbody>
</table>
</div>
<details><summary>Settings that all points of the search share</summary>
<dl>
$shared
</dl>
</details>
</main>
<footer><p>Made from <code>$command</code>, started $created, with $versions.</p></footer>
<div id="toast" role="status" aria-live="polite"></div>
<script>
"use strict";
const toast = document.getElementById("toast");
let hiding;

function say(text) {
  toast.textContent = text;
  toast.classList.add("shown");
  clearTimeout(hiding);
  hiding = setTimeout(() => toast.classList.remove("shown"), 2500);
}

function copyBySelection(text) {
  const area = document.createElement("textarea");
  area.value = text;
  document.body.append(area);
  area.select();
  const copied = document.execCommand("copy");
  area.remove();
  return copied;
}

async function copyRecipe(trial, recipe) {
  try {
    await navigator.clipboard.writeText(recipe);
  } catch {  // no clipboard on this page, or no leave to use it
    if (!copyBySelection(recipe)) {
      window.prompt("Recipe of trial " + trial + ":", recipe);
      return;
    }
  }
  say("recipe of trial " + trial + " copied");
}

document.getElementById("plot").on("plotly_click", (event) => copyRecipe(...event.points[0].customdata));
for (const button of document.querySelectorAll("button[data-recipe]")) {
  button.addEventListener("click", () => copyRecipe(button.dataset.trial, button.dataset.recipe));
}
</script>
</body>
</html>
""")
