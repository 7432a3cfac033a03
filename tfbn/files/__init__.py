"""Files that hold no model: `atomic` writes a file or folder whole or not at all, `npz` reads arrays."""
