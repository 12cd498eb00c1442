"""``clever-hub serve``: embeddings over HTTP, with dynamic batches and a page to try a model on."""
