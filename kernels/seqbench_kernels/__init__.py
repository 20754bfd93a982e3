"""Operations of sequence models: for each a plain reference, fast paths beside it, and one dispatch."""
