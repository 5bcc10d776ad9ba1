"""Kill, repair, fail back, again and again, with nobody at the keyboard."""
