"""Mining translations from two monolingual texts."""
