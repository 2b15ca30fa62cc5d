package queue

// activeHeap orders by priority, then by waiting time.
type activeHeap []*Item

func (h activeHeap) Len() int { return len(h) }

func (h activeHeap) Less(i, j int) bool {
	if h[i].pod.Priority != h[j].pod.Priority {
		return h[i].pod.Priority > h[j].pod.Priority
	}
	return h[i].since.Before(h[j].since)
}

func (h activeHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push appends; it is for container/heap.
func (h *activeHeap) Push(x any) {
	if item, ok := x.(*Item); ok {
		item.index = len(*h)
		*h = append(*h, item)
	}
}

// Pop takes the last one off; it is for container/heap.
func (h *activeHeap) Pop() any {
	last := len(*h) - 1
	item := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return item
}

// backoffHeap orders by the end of the delay.
type backoffHeap []*Item

func (h backoffHeap) Len() int           { return len(h) }
func (h backoffHeap) Less(i, j int) bool { return h[i].ready.Before(h[j].ready) }

func (h backoffHeap) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i, j
}

// Push appends; it is for container/heap.
func (h *backoffHeap) Push(x any) {
	if item, ok := x.(*Item); ok {
		item.index = len(*h)
		*h = append(*h, item)
	}
}

// Pop takes the last one off; it is for container/heap.
func (h *backoffHeap) Pop() any {
	last := len(*h) - 1
	item := (*h)[last]
	(*h)[last] = nil
	*h = (*h)[:last]
	return item
}
