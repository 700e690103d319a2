"""What is shown and served beside a model on the Hub: its card, its Space, its endpoint handler."""
