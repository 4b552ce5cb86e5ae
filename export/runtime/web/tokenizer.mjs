// Tokenizers of characters and of words: text to ids and back.

/** A tokenizer of characters or words. */
export class Tokenizer {
  constructor(content, special) {
    this.kind = content.kind;
    this.vocabulary = content.vocabulary;
    this.special = new Set(Object.values(special));
    this.unknown = special.unk;
    this.ids = new Map(this.vocabulary.map((piece, id) => [piece, id]).filter(([, id]) => !this.special.has(id)));
  }

  pieces(text) {
    return this.kind === "char" ? Array.from(text) : text.split(/[ \t\n\r\f\v]+/).filter((word) => word);
  }

  encode(text) {
    return this.pieces(text).map((piece) => this.ids.get(piece) ?? this.unknown);
  }

  tokens(ids) {
    return ids.map((id) => this.vocabulary[id]);
  }

  decode(ids) {
    return this.tokens(ids.filter((id) => !this.special.has(id))).join(this.kind === "char" ? "" : " ");
  }
}
