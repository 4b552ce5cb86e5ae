// Knobs of a search: the inputs of `translate` besides the source.

import { ArtefactError } from "./errors.mjs";

/** Throw for a knob that the artefact lacks. */
export function checkNames(manifest, given) {
  const known = new Set(Object.keys(manifest.knobs));
  const stranger = Object.keys(given).find((name) => !known.has(name) && given[name] !== undefined);
  if (stranger) throw new ArtefactError(`No knob ${stranger}. Expected: one of ${[...known].join(", ")}`);
}

/** Return the knobs, checked, with the manifest's defaults where none is given. Arrays but `prefix` are flat. */
export function knobValues(manifest, given, rows) {
  const values = {};
  for (const [name, knob] of Object.entries(manifest.knobs)) {
    if (name === "allowed" || name === "prefix") continue;
    const { axes } = manifest.signatures.translate.inputs[name];
    if (axes.length) {
      const count = axes.reduce((product, axis) => product * (axis === "batch" ? rows.length : axis), 1);
      const fill = () => (knob.random ? knob.minimum + Math.random() * (knob.maximum - knob.minimum) : knob.default);
      values[name] = given[name] ?? Array.from({ length: count }, fill);
      const wrong = Array.from(values[name]).some((one) => !(one >= knob.minimum && one <= knob.maximum));
      if (values[name].length !== count || wrong) {
        throw new ArtefactError(
          `${name} does not fit. Expected: ${count} numbers, ${knob.minimum} to ${knob.maximum}, row by row`,
        );
      }
      continue;
    }
    const value = given[name] ?? knob.default;
    const whole = manifest.signatures.translate.inputs[name].dtype === "int32";
    const fits = whole ? Number.isInteger(value) : Number.isFinite(value);
    if (!fits || value < (knob.minimum ?? -Infinity) || value > (knob.maximum ?? Infinity)) {
      let range = knob.minimum === undefined ? "a finite number" : `at least ${knob.minimum}, and finite`;
      if (knob.maximum !== undefined) {
        range = `${knob.minimum} to ${knob.maximum} (fixed at export)${whole ? ", a whole number" : ""}`;
      }
      throw new ArtefactError(`${name} is out of range. Expected: ${range}. Received: ${value}`);
    }
    values[name] = value;
  }
  if (values.min_length > values.max_length) {
    throw new ArtefactError(`min_length is above max_length. Received: ${values.min_length}, ${values.max_length}`);
  }
  const [vocabulary] = manifest.signatures.translate.inputs.allowed.axes;
  values.allowed = given.allowed ?? new Array(vocabulary).fill(true);
  values.prefix = given.prefix ?? rows.map(() => []);  // without this knob it stays empty
  if (values.allowed.length !== vocabulary || values.prefix.length !== rows.length) {
    throw new ArtefactError(`Expected: ${vocabulary} values in allowed, and a prefix for each of ${rows.length} rows`);
  }
  const { eos, pad } = manifest.special_ids;
  for (const prefix of values.prefix) {
    const wrong = prefix.find((id) => !Number.isInteger(id) || id < 0 || id >= vocabulary || id === eos || id === pad);
    if (wrong !== undefined) {
      throw new ArtefactError(`A prefix holds what cannot be written there. Expected: ids of words. Received: ${wrong}`);
    }
    if (prefix.length > values.max_length) {
      throw new ArtefactError(
        `A prefix is longer than a translation may be. Expected: at most ${values.max_length} tokens. ` +
          `Received: ${prefix.length}`,
      );
    }
  }
  return values;
}
