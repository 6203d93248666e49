"""The functions of a lifejacket bundle. Each file goes into the bundle, where it holds a function of its own
name, as that package wants it, and needs nothing of this project. They are written for jax, which traces
them."""
