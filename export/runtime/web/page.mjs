// The page around artefact.mjs: a translation form, with tokens that highlight what they attend to.
//
// Serve the artefact's folder, with ONNX Runtime Web in it, and open /web/ at the address:
//
//   npm install onnxruntime-web && python -m http.server

const show = (word) => (word === " " ? "\u2423" : word);

/** Control a page like index.html; `open` returns the artefact. Resolves when the form is ready, or has failed. */
export async function run(document, open) {
  const [form, text, button] = ["form", "textarea", "button"].map((name) => document.querySelector(name));
  const [status, results] = [document.getElementById("status"), document.querySelector("main")];
  const best = document.querySelector("input[name=best]");
  const say = (message, wrong = false) => {
    status.textContent = message;
    status.className = wrong ? "error" : "";
  };
  let artefact;
  try {
    artefact = await open();
  } catch (error) {
    say(
      `The model cannot be loaded: ${error.message}. ONNX Runtime Web has to lie in the artefact's folder (npm install onnxruntime-web), ` +
        "and the folder has to be served: python -m http.server",
      true,
    );
    return;
  }
  best.max = artefact.manifest.beam_size;
  button.disabled = false;
  say("Ready.");
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    const lines = text.value.split("\n").filter((line) => line.trim());
    button.disabled = true;
    say("Translating …");
    const started = Date.now();
    try {
      const found = await artefact.translate(lines);
      const count = Math.min(Math.max(Number(best.value) || 1, 1), artefact.manifest.beam_size);
      results.replaceChildren(...found.flatMap((all) => all.slice(0, count).map((one) => section(document, one))));
      say(`${found.length} sentence(s) in ${Date.now() - started} ms.`);
    } catch (error) {
      say(error.message, true);
    } finally {
      button.disabled = false;
    }
  });
}

/** One translation: its source, its tokens, and the highlights between them. */
export function section(document, hypothesis) {
  const make = (name, content, kind = "") => {
    const element = document.createElement(name);
    if (kind) element.className = kind;
    element.append(...[content].flat());
    return element;
  };
  const source = hypothesis.sourceTokens.map((token) => make("li", show(token)));
  const output = hypothesis.tokens.map((token) => make("li", show(token)));
  const light = (chosen) => {
    output.forEach((word, t) => word.classList.toggle("on", t === chosen));
    source.forEach((word, s) => {
      const weight = chosen < 0 ? 0 : hypothesis.alignment[chosen][s];
      word.style.background = `rgba(8, 81, 156, ${weight.toFixed(3)})`;
      word.style.color = weight > 0.5 ? "#fff" : "";
      word.title = chosen < 0 ? "" : weight.toFixed(3);
    });
  };
  output.forEach((word, t) => {
    word.tabIndex = 0;
    for (const event of ["mouseenter", "focus", "click"]) word.addEventListener(event, () => light(t));
  });
  const whole = make("section", [
    make("ul", source, "source"),
    make("div", `${hypothesis.text}  (${hypothesis.score.toFixed(3)})`, "label"),
    make("ul", output, "output"),
  ]);
  whole.addEventListener("mouseleave", () => light(-1));
  return whole;
}
