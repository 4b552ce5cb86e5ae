// The manifest of an artefact, and the checksums of its files.

import { ArtefactError } from "./errors.mjs";

const FORMAT_VERSION = 4;

/** Whether this is Node, where an artefact is a folder. */
export const IN_NODE = typeof process !== "undefined" && Boolean(process.versions?.node);

/** Return a function that reads one file of a folder or an address. */
export function reader(location) {
  if (IN_NODE) {
    return async (name) => {
      const [{ readFile }, { join }] = await Promise.all([import("node:fs/promises"), import("node:path")]);
      try {
        return new Uint8Array(await readFile(join(location, name)));
      } catch (error) {
        throw new ArtefactError(`${location}/${name} cannot be read (${error.code}). Copy the whole artefact`);
      }
    };
  }
  return async (name) => {
    const response = await fetch(`${location}/${name}`);
    if (!response.ok) throw new ArtefactError(`${location}/${name} cannot be read (${response.status})`);
    return new Uint8Array(await response.arrayBuffer());
  };
}

/** Parse JSON, with an error that names its location. */
export function parsed(text, where) {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ArtefactError(`${where} is no JSON (${error.message})`);
  }
}

async function sha256(bytes) {
  if (!globalThis.crypto?.subtle) {
    throw new ArtefactError("SHA-256 is missing here: open the page by https, or on localhost");
  }
  const digest = new Uint8Array(await globalThis.crypto.subtle.digest("SHA-256", bytes));
  return Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Read the manifest. Throws if it is damaged, edited or of another format version. */
export async function readManifest(location, read) {
  const written = new TextDecoder().decode(await read("manifest.json"));
  const manifest = parsed(written, "manifest.json");
  if (manifest.format_version !== FORMAT_VERSION) {
    throw new ArtefactError(
      `${location} is of another version. Expected: format_version ${FORMAT_VERSION}. ` +
        `Received: ${manifest.format_version}. ` +
        (manifest.format_version > FORMAT_VERSION ? "It is newer: use the runtime that lies in it" : "Export again"),
    );
  }
  // The checksum is that of the text with zeros in its place.
  const { checksum } = manifest;
  const zeroed = checksum ? written.replaceAll(checksum, "0".repeat(64)) : "";
  if ((await sha256(new TextEncoder().encode(zeroed))) !== checksum) {
    throw new ArtefactError(
      `${location}: manifest.json was changed after the export (its checksum does not match). Export again`,
    );
  }
  return manifest;
}

/** Read one file, after its size and SHA-256 were compared with the manifest. */
export async function readFile(manifest, read, name) {
  const entry = manifest.files[name];
  if (/^([/\\]|\w:)|\\|(^|\/)\.\.(\/|$)/.test(name)) {
    throw new ArtefactError(
      `The artefact names a file outside of itself. Expected: names below it. Received: '${name}'. Export again`,
    );
  }
  const bytes = entry ? await read(name) : "";
  if (!entry || bytes.length !== entry.bytes || (await sha256(bytes)) !== entry.sha256) {
    throw new ArtefactError(`${name} is not the exported file. Copy it again, or export again`);
  }
  return bytes;
}
