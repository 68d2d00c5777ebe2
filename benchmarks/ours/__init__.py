"""JidoSystem's side of each row."""
