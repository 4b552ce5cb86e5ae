// The error of the runtime.

/** The artefact, or what was asked of it, is not right; the message says what, where and what to do. */
export class ArtefactError extends Error {}
