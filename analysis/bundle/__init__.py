"""The functions of a lifejacket bundle. Each file goes into the bundle as it is, needs nothing of this project,
and holds a function of its own name, as that package wants it. They are written for jax, which traces them."""
