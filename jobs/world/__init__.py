"""The embedded world: scenes, captions, texts, questions and models trained on them."""
