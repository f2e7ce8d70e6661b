"""How the bundled models were made: a closed world of coloured shapes that move."""
