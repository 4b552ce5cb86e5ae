// The error of the runtime.

/** An invalid artefact or request; the message says what, where and what to do. */
export class ArtefactError extends Error {}
