"""The kit of all pages: templates with one stylesheet, numbers in words, tables, and charts as SVG."""
