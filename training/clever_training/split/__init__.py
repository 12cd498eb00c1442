"""The two parts in closed form: a rotation of any embedding, from what moves and what stays."""
