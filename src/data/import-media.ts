/** The keys under which other projects' rows hold their pictures and videos: one or several, singular or plural. */
import { z } from 'zod';
import { fileVideoSchema } from './rows.js';

const imageList = z.union([z.string().min(1), z.array(z.string().min(1))]);
const videoList = z.union([fileVideoSchema, z.array(fileVideoSchema)]);

export const mediaFields = {
  id: z.union([z.string(), z.number()]).optional().describe('Unique name; "file:line" when left out.'),
  image: imageList.optional().describe('One path, or several.'),
  images: imageList.optional().describe('Several paths, or one.'),
  video: videoList.optional().describe('One video, or several.'),
  videos: videoList.optional().describe('Several videos, or one.'),
};
