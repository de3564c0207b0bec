"""The door of predictions: what a record is, the journal that keeps it before the answer leaves, the recorder that moves it."""
