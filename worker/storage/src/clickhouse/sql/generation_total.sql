SELECT sum(changes) FROM generations
