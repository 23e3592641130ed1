"""Data sets as people have them: folders, files, hub; splits, formats, labels, languages."""
