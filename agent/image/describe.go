package image

import (
	"context"
	"slices"

	"lighter.dev/lighter/api/agentapi"
)

// Images describes the images of this host as a namespace sees them, largest
// first: what was pulled, and what its own Image objects declare. "" sees what was
// pulled alone.
func (s *Store) Images(ctx context.Context, namespace string) ([]agentapi.Image, error) {
	all, err := s.List(ctx)
	if err != nil {
		return nil, err
	}
	var out []agentapi.Image
	for i := range all {
		shown := all[i].shownTo(namespace)
		if shown == nil {
			continue
		}
		out = append(out, *shown)
	}
	return hideShadowed(out, namespace), nil
}

// shownTo is what a namespace may know of a version, or nil.
func (sum *Summary) shownTo(namespace string) *agentapi.Image {
	out := &agentapi.Image{Digest: sum.Digest.String(), Size: sum.Size, Arrived: sum.CreatedAt, Containers: len(sum.Containers)}
	if made := sum.img.Config.Created; made != nil {
		out.Created = *made
	}
	seen := false
	for _, rec := range sum.recs {
		if !visible(rec, namespace) {
			continue
		}
		seen = true
		_, plain, built := splitBuilt(rec.Name)
		if built && !slices.Contains(out.Namespaces, namespace) {
			out.Namespaces = []string{namespace}
		}
		if name, _, pinned := splitCanonical(plain); !pinned && !slices.Contains(out.Names, name) {
			out.Names = append(out.Names, name)
		}
	}
	if !seen {
		return nil
	}
	slices.Sort(out.Names)
	return out
}

// hideShadowed takes pulled names away that mean a build in the namespace.
func hideShadowed(list []agentapi.Image, namespace string) []agentapi.Image {
	if namespace == "" {
		return list
	}
	built := map[string]bool{}
	for _, img := range list {
		if len(img.Namespaces) > 0 {
			for _, name := range img.Names {
				built[name] = true
			}
		}
	}
	for i, img := range list {
		if len(img.Namespaces) == 0 {
			list[i].Names = slices.DeleteFunc(img.Names, func(name string) bool { return built[name] })
		}
	}
	return list
}

// Details describes one image of this host with what is in it.
func (s *Store) Details(ctx context.Context, namespace, ref string) (agentapi.ImageDetails, error) {
	ctx = s.in(ctx)
	name, rec, err := s.lookup(ctx, namespace, ref)
	if err != nil {
		return agentapi.ImageDetails{}, err
	}
	all, err := s.List(ctx)
	if err != nil {
		return agentapi.ImageDetails{}, err
	}
	desc, manifest, err := platformManifest(ctx, s.content, s.platform, rec.Target)
	if err != nil {
		return agentapi.ImageDetails{}, err
	}
	img, err := s.inspect(ctx, name, rec.Target)
	if err != nil {
		return agentapi.ImageDetails{}, err
	}
	out := agentapi.ImageDetails{Manifest: desc.Digest.String(), Config: img.Config, Layers: manifest.Layers}
	for i := range all {
		if all[i].Digest == rec.Target.Digest {
			if shown := all[i].shownTo(namespace); shown != nil {
				out.Image = *shown
			}
		}
	}
	return out, nil
}
